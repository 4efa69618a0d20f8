class PostsController < ApplicationController
  def index
    @posts = Post.all
  end

  def create
    Post.create!(title: params[:title])
    head :created
  end
  skip_forgery_protection
end
